"""A Gradio app for a published model: `python -m stages.release.space FOLDER --repo owner/space --model-repo owner/model`."""
