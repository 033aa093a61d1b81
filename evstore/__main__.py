"""`python -m evstore` is the command line `evstore`."""

from evstore.cli import main

raise SystemExit(main())
