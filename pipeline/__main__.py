"""`python -m pipeline` is `groundup`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
