"""Starts `wstest` (Python 2) without pyOpenSSL, which can't be installed any more and which ws:// does not need."""

import sys
import types

import twisted.internet

without_tls = types.ModuleType("twisted.internet.ssl")
sys.modules["twisted.internet.ssl"] = without_tls
twisted.internet.ssl = without_tls

from autobahntestsuite import wstest  # noqa: E402  (it imports the module above)

wstest.run()
