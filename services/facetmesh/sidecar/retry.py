"""When a delivery that failed is tried again, as Dapr's resiliency policies say it."""

from __future__ import annotations

import random
from dataclasses import dataclass

# What daprd's exponential policy does and its YAML cannot change.
_INITIAL_S = 0.5
_FACTOR = 1.5
_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after how long. The defaults are daprd's."""

    exponential: bool = False
    """Wait longer each time, from half a second on; else always the same."""
    duration_s: float = 5.0
    """How long a constant policy waits, in seconds."""
    max_interval_s: float = 60.0
    """The longest wait of an exponential policy, in seconds."""
    max_retries: int = -1
    """How many tries after the first; -1 for ever."""

    def allows(self, failures: int) -> bool:
        """Whether to try again after so many failures."""
        return self.max_retries < 0 or failures <= self.max_retries

    def delay_s(self, failures: int) -> float:
        """How long to wait after so many failures, in seconds."""
        if not self.exponential:
            return self.duration_s
        # Beyond some 40 failures the power would only overflow; the cap holds long before.
        wait_s = min(self.max_interval_s, _INITIAL_S * _FACTOR ** min(failures - 1, 40))
        return wait_s * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret


NEVER = RetryPolicy(max_retries=0)
"""No second try: what daprd does where no policy is set."""
