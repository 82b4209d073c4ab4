"""The model server process: HTTP, the document's watch, loading of versions, status. One per replica."""
