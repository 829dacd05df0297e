"""Real training on a corpus: any number of clips in bounded memory, one process or several, resumed
exactly after a kill.

`tts_core/training/train.py` is the way in (torchrun or python -m). Stands on everything below it;
nothing stands on it.
"""
