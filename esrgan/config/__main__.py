"""Print the JSON schema for editors, the content of ``configs/schema.json``: ``python -m esrgan.config``."""

import json

from esrgan.config.schema import json_schema

print(json.dumps(json_schema(), indent=2))
