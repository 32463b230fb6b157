"""What must survive when things fail, with figures: ``nox -s faults``. Linux, root.

They take minutes, so they are no part of the tests that README's command runs.
"""
