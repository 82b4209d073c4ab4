"""The only importers of vendor clients; a file is vendor_role, and one vendor each."""
