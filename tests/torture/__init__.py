"""The whole way of an event under fire, and the count of what is left: `python -m tests.torture --help`.

Rooms, each importing only from those below:

     __main__     the command
     storm        what is started, and what hits it
     writers      producers that may be killed          judge    what there must be in the end
     producer     one of them, as a program             people   customers, their events, their truth
"""
