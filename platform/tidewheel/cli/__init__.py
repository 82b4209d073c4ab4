"""The tidewheel command: one module per subcommand, one error boundary, one way to print."""
