"""Studies: grids of runs as data (``experiments/*.toml``), carried out once each, and what the grid as a whole says.

``study`` what a study is, ``grid`` the runs it asks for, ``job`` and ``executors`` how they are carried out, ``cells``
and ``comparisons`` estimates with intervals, ``published`` what the papers have.
"""
