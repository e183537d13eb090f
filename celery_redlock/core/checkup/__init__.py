"""What is wrong with an app's lock servers, settings and tasks: judged from facts, without I/O.

``facts`` says what is known, ``finding`` what a check says. Each check is a small function in
``server`` (one server), ``servers`` (several together) or ``tasks`` (the app); docs/doctor.md has
every one by its name.
"""
