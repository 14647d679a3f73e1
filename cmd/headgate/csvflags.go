package main

import "github.com/headgate/headgate/exec/protocol"

// csvFlags say of CSV files what is not to be found out by looking.
type csvFlags struct {
	Delimiter       string            `name:"csv-delimiter" help:"What is between two values." placeholder:"TEXT"`
	Quote           *string           `name:"csv-quote" help:"What is around a value with a delimiter in it; empty for nothing." placeholder:"CHAR"`
	Escape          *string           `name:"csv-escape" help:"What is in front of a quote within quotes; empty for nothing." placeholder:"CHAR"`
	Header          *bool             `name:"csv-header" negatable:"" help:"The first row has the columns' names, or (--no-csv-header) it has values."`
	Skip            *int              `name:"csv-skip" help:"Lines in front of the first row." placeholder:"N"`
	Comment         string            `name:"csv-comment" help:"What lines begin with that count for nothing." placeholder:"CHAR"`
	Null            []string          `name:"csv-null" sep:"none" help:"A text that is NULL; may be given several times." placeholder:"TEXT"`
	DateFormat      string            `name:"csv-date-format" help:"Of dates, as strftime has it: %d.%m.%Y." placeholder:"FORMAT"`
	TimestampFormat string            `name:"csv-timestamp-format" help:"Of timestamps, the same." placeholder:"FORMAT"`
	DecimalComma    bool              `name:"csv-decimal-comma" help:"1,5 is a number."`
	Encoding        string            `name:"csv-encoding" help:"utf-8, utf-16 or latin-1." placeholder:"NAME"`
	Types           map[string]string `name:"csv-type" mapsep:"none" help:"A column's type: --csv-type zip=VARCHAR; may be given several times." placeholder:"COLUMN=TYPE"`
}

// options returns nil if nothing was said.
func (f *csvFlags) options() *protocol.CSV {
	c := protocol.CSV{
		Delimiter: f.Delimiter, Quote: f.Quote, Escape: f.Escape, Header: f.Header, Skip: f.Skip, Comment: f.Comment, Null: f.Null,
		DateFormat: f.DateFormat, TimestampFormat: f.TimestampFormat, DecimalComma: f.DecimalComma, Encoding: f.Encoding, Types: f.Types,
	}
	if c.Delimiter == `\t` {
		c.Delimiter = "\t" // which a shell makes hard to write
	}
	return &c
}
