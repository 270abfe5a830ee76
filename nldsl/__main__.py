"""`python -m nldsl` is the command line."""

from nldsl.cli import main

if __name__ == "__main__":
    main()
