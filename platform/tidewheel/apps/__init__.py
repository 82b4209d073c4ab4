"""One module or package per running process; here ports meet adapters."""
