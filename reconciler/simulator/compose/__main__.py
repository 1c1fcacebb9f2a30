"""`python -m reconciler.simulator.compose`."""

from reconciler.simulator.compose import main

raise SystemExit(main())
