"""The web page of ``esrgan demo``, where models can be tried."""
