"""Profiles of the random tests. `ci` is derandomized: a failure there fails again at once, everywhere; `quick`, for
`make unit`, is the beginning of it.

`OPX_PROPERTY_PROFILE=deep` searches longer with a new seed each time; pytest then prints the seed and the line that
reproduces a failure (`--hypothesis-seed=…`, `@reproduce_failure`).
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=30)
settings.register_profile("deep", settings.get_profile("ci"), derandomize=False, print_blob=True, max_examples=3000)
settings.load_profile(os.environ.get("OPX_PROPERTY_PROFILE", "ci"))
