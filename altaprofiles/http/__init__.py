"""The life of one call: a slot, an attempt, its time limits, its retries.

Knows HTTP but no endpoint: `wire` builds the requests and reads the answers.
"""

from ..base.extras import check_core

# Here, as whatever sends or answers requests passes, and with an older aiohttp the imports fail.
check_core()
