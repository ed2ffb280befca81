"""Every case: evidence of real machines where the folder is here, simulated evidence always."""

from tests.conformance import Case, bundles, real, simulated


def all_cases() -> list[Case]:
    return [*real.cases(), *simulated.cases(), *bundles.cases()]
