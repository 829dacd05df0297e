"""Trainings that are compared, and how a comparison becomes a ruling.

one training     overfit (a preset bound to clips), trial (frozen, hashed), run (trained and
judged), store, executors many trainings   sweep and lr_range (notebook 05), batches (04), arms and
studies (the investigation, 06) a ruling         statistics (tests and intervals), rulings (effects
over pairs), evidence (recorded results)
"""
