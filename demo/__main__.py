"""`python -m demo`: tells the story; exit status 0 only if it ended well."""

import signal
import sys

from demo.story import main

# So that the server is not left behind when the demo is terminated.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
sys.exit(main())
