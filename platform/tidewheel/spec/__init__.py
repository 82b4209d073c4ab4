"""What a model project declares: frozen types, one loader, one JSON Schema."""
