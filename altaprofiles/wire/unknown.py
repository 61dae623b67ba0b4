"""Words for a person whom a service does not know. Pure functions.

Sources:
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re

__all__ = ["blames_credentials", "says_unknown"]

# Nothing but a person: "user service not found" is the failure of a service.
_THING = (
    r"(?:(?:the|this|that|an?|any|your|end|requested|given|specified|such|matching|existing|valid"
    r"|user|customer)[\s-]+){0,4}"
    r"(?:profile|user|record|customer|person|anonymous[\s_-]*(?:id|user))s?"
    r"(?:[\s_-]+(?:profile|record|data|details|ids?|identity|email))?"
)
_KEY = r"""(?:\s+(?:with|for|having|by|named|matching)\s+[^,;]{1,200}?"""
_KEY += r"""|[\s:=#(]+(?:'[^']{1,200}'|"[^"]{1,200}"|\S*[\d@'"]\S*))?"""
_MISSING = (
    r"(?:(?:(?:was|is|are|were|could|can|has|have)(?:\s+not|n['\u2019]?t)|cannot|not"
    r"|(?:does|do|did)(?:\s+not|n['\u2019]?t))\s+(?:be(?:en)?\s+)?(?:found|exists?|present|known)"
    r"|(?:is|was)\s+unknown)"
)
_UNKNOWN = re.compile(
    r"(?:(?:error|sorry|bad request|not found|[45]\d\d|(?:request|lookup|query) failed)\W+){0,3}"
    rf"(?:{_THING}{_KEY}\s+{_MISSING}"
    rf"|(?:there\s+(?:is|was|are|were)\s+)?(?:no|unknown)\s+{_THING}"
    r"(?:\s+(?:is|was|were|could be|has been))?(?:\s+(?:found|exists?|present|match\w*))?"
    r"|(?:we\s+)?(?:could(?:\s+not|n['\u2019]?t)|can(?:not|\s+not|['\u2019]?t)|did(?:\s+not|n['\u2019]?t)"
    rf"|unable to|failed to)\s+(?:find|locate)\s+{_THING})"
    r"(?P<rest>(?!\w).*)",
    re.IGNORECASE | re.DOTALL,
)
# The name of a person follows, which may read like anything.
_QUOTES = re.compile(
    r"\s+(?:with|for|having|by|named|matching"
    r"|in\s+(?:\w+\s+){0,2}(?:account|project|workspace|region|database|system))\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[.,;:!()]+(?:\s+|$)|\s[-\u2013\u2014(]+\s?|\s(?:as|because|since|while|until|but|yet|and|or)\s",
    re.IGNORECASE,
)
_FAILURE = re.compile(
    r"credential|passcode|token|unauthori[sz]|authenticat|forbidden|permission|allowed|denied"
    r"|throttl|rate.?limit|too many|quota|progress|retry|again|later|time[d\s-]*out|unavailable"
    r"|internal|incorrect usage|expired|overload|busy|maintenance|not ready|prepared|processing"
    r"|fail|error|upstream",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(
    r"\b(?:with|for|having|by|matching)\s+"
    r"(?:(?:the|this|that|these|those|your|such|any|given|provided|supplied)\s+){0,3}"
    r"(?:credentials?|passcode|(?:access\s+)?token|api[\s_-]*key|account[\s_-]*id|auth\w*)\b",
    re.IGNORECASE,
)


def says_unknown(message: str, *, quotes_anything: bool = False) -> bool:
    """Return whether a message says that there is no such person, and nothing else ([seen]).

    A message of another failure may say so as well ("request throttled: no profile found"), and a
    quoted key may read like a failure ("no profile found for Throttled").

    Args:
        message: the words of a service.
        quotes_anything: whether the key that is quoted may be of several clauses.
    """
    found = _UNKNOWN.fullmatch(message.strip())
    if found is None or blames_credentials(message):
        return False
    rest = found["rest"]
    first, *others = _CLAUSE.split(rest)
    is_quote = bool(_QUOTES.match(first))
    if first.strip() and not is_quote:
        return False
    return (is_quote and quotes_anything) or not any(map(_FAILURE.search, others))


def blames_credentials(message: str) -> bool:
    """Return whether credentials are what a message calls unknown ([seen])."""
    return bool(_CREDENTIALS.search(message))
