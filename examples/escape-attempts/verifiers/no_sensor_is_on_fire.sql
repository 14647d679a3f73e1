SELECT * FROM readings WHERE celsius > 100
