"""`python -m tidewheel`: the same entry point as the `tidewheel` command."""

from tidewheel.cli.main import main

if __name__ == "__main__":
    main()
