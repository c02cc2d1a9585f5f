"""Make the HTML report and the plots of a model or a bundle."""
