"""Signals as a terminal leaves them: a shell starts what runs in the background with Ctrl-C and hang-up ignored, which
children inherit and the launcher respects, so that tests that send them would wait for ever.
"""

from __future__ import annotations

import signal

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
