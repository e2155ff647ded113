"""What holds for all tests."""

import signal


def pytest_configure():
    """Have ^C mean something in what the tests start, as in a terminal.

    A shell that runs the tests in the background has SIGINT and SIGQUIT ignored, and that is inherited.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
