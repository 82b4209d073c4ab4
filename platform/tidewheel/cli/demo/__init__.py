"""The demo: a story told over public commands, a screen to watch it on, and what it verified."""
