"""Words of a bootstrap: now in `report.sentences`."""

from report.sentences import UNITS as PLURAL
from report.sentences import area_name, signed, verdict

__all__ = ["PLURAL", "area_name", "signed", "verdict"]
