"""What a project is in Kubernetes: pure builders of plain objects, one module per kind. Nothing here calls an API."""
