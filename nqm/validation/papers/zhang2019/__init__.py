"""Zhang et al. (2019) on networks of our own: predictions beside training, claims judged, figures 5 to 10 and 12.

- :mod:`.network_rung`: one network measured, predicted, trained; :mod:`.network_result`: the tables of it.
- :mod:`.claims`: section 4's claims, judged. :mod:`.steps`, :mod:`.spectra`: figures. :mod:`.report`: all in words.
"""

__all__: list[str] = []
