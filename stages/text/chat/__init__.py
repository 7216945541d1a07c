"""Talk to a trained model in the terminal: `python -m stages.text.chat FOLDER` (a program, not a stage)."""
