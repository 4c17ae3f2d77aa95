"""Imported first by the server's processes, so that they start quickly.

``jsonschema`` loads whatever it finds for the checking of formats. One such package, which others
bring along, reads a whole grammar of addresses, for seconds; no format is checked here.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
