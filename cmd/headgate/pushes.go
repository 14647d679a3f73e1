package main

import (
	"fmt"
	"time"

	"github.com/headgate/headgate/exec/plan"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/server/receivepack"
)

// pushLimits are the flags that say what one push, and all together, may cost.
type pushLimits struct {
	MaxPushBytes       string        `help:"Longest pack of one push." default:"64GiB" placeholder:"SIZE"`
	MaxPushObjects     int           `help:"Most objects of one push; each takes some 260 bytes of memory until the push has landed." default:"2000000" placeholder:"N"`
	MaxPushObjectBytes string        `help:"Largest file of one push." default:"16GiB" placeholder:"SIZE"`
	MaxPushDeltaDepth  int           `help:"Longest chain of deltas in a push." default:"4095" placeholder:"N"`
	MaxPushInflation   int64         `help:"How many times its own size a pack may inflate to, beyond its first GiB." default:"512" placeholder:"N"`
	MaxStaging         string        `help:"Disk that all pushes on their way in may take together; 0 is all there is." default:"0" placeholder:"SIZE"`
	MinFreeDisk        string        `help:"A push that would leave less than this free on the disk is refused." default:"256MiB" placeholder:"SIZE"`
	PushStall          time.Duration `help:"A push of which nothing comes for so long, once its pack has begun, is given up." default:"2m" placeholder:"DURATION"`
	PushMinRate        string        `help:"A push that comes more slowly than so many bytes a second is given up; 0 is any." default:"1KiB" placeholder:"SIZE"`
}

// pushRules is what the flags say.
type pushRules struct {
	Limits  objects.Limits
	Staging *objects.Staging
	Pace    receivepack.Pace
}

func (f *pushLimits) rules() (pushRules, error) {
	r := pushRules{
		Limits: objects.Limits{Objects: f.MaxPushObjects, DeltaDepth: f.MaxPushDeltaDepth, InflateRatio: f.MaxPushInflation},
		Pace:   receivepack.Pace{Stall: f.PushStall},
	}
	var staging, free int64
	for _, s := range []struct {
		flag, text string
		least      int64
		to         *int64
	}{
		{"max-push-bytes", f.MaxPushBytes, 1 << 10, &r.Limits.PackBytes},
		{"max-push-object-bytes", f.MaxPushObjectBytes, 1 << 10, &r.Limits.ObjectBytes},
		{"max-staging", f.MaxStaging, 0, &staging},
		{"min-free-disk", f.MinFreeDisk, 0, &free},
		{"push-min-rate", f.PushMinRate, 0, &r.Pace.Rate},
	} {
		if s.text == "0" && s.least == 0 {
			continue
		}
		n, err := plan.ParseSize(s.text)
		if err == nil && n < s.least {
			err = fmt.Errorf("%s is less than %d bytes", s.text, s.least)
		}
		if err != nil {
			return r, fmt.Errorf("--%s: %w", s.flag, err)
		}
		*s.to = n
	}
	switch {
	case f.MaxPushObjects < 1 || f.MaxPushObjects > 1<<31-1:
		return r, fmt.Errorf("--max-push-objects %d: want between 1 and %d", f.MaxPushObjects, 1<<31-1)
	case f.MaxPushDeltaDepth < 1 || f.MaxPushDeltaDepth > 1<<20:
		return r, fmt.Errorf("--max-push-delta-depth %d: want between 1 and %d", f.MaxPushDeltaDepth, 1<<20)
	case f.MaxPushInflation < 1 || f.MaxPushInflation > 1<<20:
		return r, fmt.Errorf("--max-push-inflation %d: want between 1 and %d", f.MaxPushInflation, 1<<20)
	case f.PushStall < time.Second:
		return r, fmt.Errorf("--push-stall %s: want at least 1s", f.PushStall)
	}
	if r.Pace.Rate == 0 {
		r.Pace.Rate = -1
	}
	r.Staging = objects.NewStaging(staging, free)
	return r, nil
}
