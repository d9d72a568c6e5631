"""How long Hypothesis searches: ``quick`` by default, ``long`` where there is time.

``HYPOTHESIS_PROFILE=long`` chooses, and so does ``--hypothesis-profile=long``, which wins.
"""

import os

from hypothesis import HealthCheck, settings

# No deadline: how long an example takes says more about the machine than about the code.
_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

# The same examples each time: what is green stays green until something changes.
settings.register_profile("quick", _COMMON, derandomize=True, max_examples=100)
settings.register_profile("long", _COMMON, max_examples=5_000, stateful_step_count=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
