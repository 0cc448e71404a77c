package biz

import "time"

// FleetObserver receives the events of the census and of the sweep, for metrics and the log. Its methods must not block or call the
// store.
type FleetObserver interface {
	// IndexChecked is called each second with whether a census has covered all gaps. While this process holds a census, and before it
	// repeats one that has failed, it is not called: the last one holds.
	IndexChecked(complete bool)
	// CensusBegan is called when this process begins to go over all links.
	CensusBegan()
	// CensusWent is called as the census goes on, with the number of links since the last call.
	CensusWent(links int)
	// CensusEnded is called once for each CensusBegan, with the number of links in all. With an error the index is as incomplete as
	// before, and the census begins again.
	CensusEnded(links int64, took time.Duration, err error)
	// Swept is called after the sweep has verified entries of the index, with how many, and how many of them were stale.
	Swept(verified, stale int)
}

// NopFleetObserver is a FleetObserver that ignores all events. Embed it to implement only some of the methods.
type NopFleetObserver struct{}

// IndexChecked implements FleetObserver.
func (NopFleetObserver) IndexChecked(bool) {}

// CensusBegan implements FleetObserver.
func (NopFleetObserver) CensusBegan() {}

// CensusWent implements FleetObserver.
func (NopFleetObserver) CensusWent(int) {}

// CensusEnded implements FleetObserver.
func (NopFleetObserver) CensusEnded(int64, time.Duration, error) {}

// Swept implements FleetObserver.
func (NopFleetObserver) Swept(int, int) {}
