-- Read a file of the machine as a table.
SELECT * FROM read_csv('/etc/passwd', sep = ':')
