"""The manager's web page and REST interface (Kaboubi, figure 4.1), served by FastAPI (``hyps[web]``)."""
