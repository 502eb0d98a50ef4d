"""`python -m relay` is the command `houdini-relay`."""

from relay.cli import main

if __name__ == "__main__":
    main()
