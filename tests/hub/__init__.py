"""A stand-in for the Hugging Face Hub on the loopback: what `huggingface_hub` calls, and faults on demand.

`tests/hub/server.py` starts it; tests get one as the fixture `hub` (`tests/release/conftest.py`). The clients are the real
libraries in processes of their own, with `HF_ENDPOINT` set (it is read at import).
"""
