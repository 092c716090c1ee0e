"""``python -m esrgan.config`` prints the JSON schema that editors use, which is kept as ``configs/schema.json``."""

import json

from esrgan.config.schema import json_schema

print(json.dumps(json_schema(), indent=2))
