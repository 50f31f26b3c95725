"""The engine: knows the nouns, names no model and no attack."""

import os

# Nothing here reports to anyone. Said before either library is imported, since that is when it is read: from 1.29 on
# onnxruntime's own builds upload what they run from a thread of their own, which the sandbox takes for an escape.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
