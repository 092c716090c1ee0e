"""``python -m esrgan.config`` prints the JSON schema that editors use, which is kept as ``configs/schema.json``."""

import json

from esrgan.config.fields import schema

print(json.dumps(schema(), indent=2))
