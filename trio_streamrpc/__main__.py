"""``python -m trio_streamrpc``: the command line."""

from trio_streamrpc.cli import main

if __name__ == "__main__":
    main()
