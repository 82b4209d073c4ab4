"""The process that parses models before a server may: it imports XGBoost once and forks a throw-away child a bundle.

``python -m tidewheel.apps.model_parser`` reads jobs from stdin and writes answers to stdout, one JSON object a line; it
ends with its stdin. It parses nothing itself.
"""
