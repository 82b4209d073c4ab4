"""One module per subcommand; each exposes ``command``, and none imports another."""
