package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	plotWidth  = 560
	plotHeight = 320 // without the legend, which is below the plot so that it covers no line
	lineHeight = 15  // of the legend
	margin     = 10
	textSize   = 11
)

// Lines differ in colour, dash and mark, so that they are distinct in greyscale too. The colours are Okabe and Ito's palette,
// which is colour-blind safe.
var (
	colors = []color.Color{
		color.RGBA{0x00, 0x72, 0xb2, 0xff}, // blue
		color.RGBA{0xd5, 0x5e, 0x00, 0xff}, // vermilion
		color.RGBA{0x00, 0x9e, 0x73, 0xff}, // green
		color.RGBA{0xcc, 0x79, 0xa7, 0xff}, // purple
		color.RGBA{0x33, 0x33, 0x33, 0xff}, // grey
		color.RGBA{0xe6, 0x9f, 0x00, 0xff}, // orange
		color.RGBA{0x56, 0xb4, 0xe9, 0xff}, // sky
	}
	dashes = [][]vg.Length{nil, {7, 3}, {2, 2}, {7, 3, 2, 3}, {12, 4}}
	marks  = []draw.GlyphDrawer{
		draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{},
	}
	grid = color.Gray{0xdd}
)

// svg draws the chart: medians as lines, the range of the runs as thin bars.
func (c Chart) svg() ([]byte, error) {
	p := plot.New()
	plain := font.Font{Typeface: plot.DefaultFont.Typeface, Variant: "Sans", Size: textSize}
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = plain, plain
		axis.Tick.Length, axis.Label.Padding, axis.Padding = 4, 5, 0
	}
	p.X.Label.Text, p.Y.Label.Text = c.X, c.Y
	c.scale(&p.X, &p.Y)

	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.ThumbnailWidth, legend.Padding = true, true, 40, 5
	legend.TextStyle.Font = plain
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = grid, grid
	lines.Vertical.Width, lines.Horizontal.Width = 0.5, 0.5
	p.Add(lines)
	for i, series := range c.Series {
		if err := series.draw(p, &legend, i); err != nil {
			return nil, fmt.Errorf("chart %s, %s: %w", c.ID, series.Name, err)
		}
	}

	below := vg.Length(lineHeight*len(c.Series) + margin)
	canvas := vgsvg.New(plotWidth, plotHeight+below)
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Path())
	p.Draw(draw.Crop(all, margin, -2*margin, below+margin, -margin))
	legend.Draw(draw.Crop(all, 6*margin, -margin, 0, -plotHeight))

	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	// The layout is for Liberation Sans, which is seldom installed: add fonts with the same metrics.
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arimo,Arial,Helvetica,sans-serif;")), nil
}

// draw adds the series to the plot, and its name to the legend.
func (s Series) draw(p *plot.Plot, legend *plot.Legend, i int) error {
	var medians struct {
		plotter.XYs
		plotter.YErrors
	}
	for _, point := range s.Points {
		median := point.Runs.Median()
		medians.XYs = append(medians.XYs, plotter.XY{X: point.X, Y: median})
		medians.YErrors = append(medians.YErrors,
			struct{ Low, High float64 }{median - slices.Min(point.Runs), slices.Max(point.Runs) - median})
	}
	line, points, err := plotter.NewLinePoints(medians.XYs)
	if err != nil {
		return err
	}
	bars, err := plotter.NewYErrorBars(medians)
	if err != nil {
		return err
	}
	hue := colors[i%len(colors)]
	line.Color, line.Width, line.Dashes = hue, 1.5, dashes[i%len(dashes)]
	points.Color, points.Radius, points.Shape = hue, 3, marks[i%len(marks)]
	bars.Color, bars.Width, bars.CapWidth = hue, 0.5, 4
	p.Add(bars, line, points)
	legend.Add(s.Name, line, points)
	return nil
}

// scale sets the ranges and ticks of the axes. The ticks of x are the measured values.
func (c Chart) scale(x, y *plot.Axis) {
	xs := c.xs()
	var ys []float64
	for _, series := range c.Series {
		for _, point := range series.Points {
			ys = append(ys, point.Runs...)
		}
	}

	x.Min, x.Max = xs[0], xs[len(xs)-1]
	switch {
	case !c.LogX:
		x.Min = min(0, x.Min)
		xs = slices.Compact(append([]float64{x.Min}, xs...))
	case x.Min == x.Max:
		x.Min, x.Max = x.Min/2, x.Max*2
	}
	if c.LogX {
		x.Scale = plot.LogScale{}
	}
	x.Tick.Marker = apart(xs, *x)

	var ticks []float64
	if c.LogY {
		ticks, y.Scale = logTicks(slices.Min(ys), slices.Max(ys)), plot.LogScale{}
	} else {
		ticks = linearTicks(min(0, slices.Min(ys)), slices.Max(ys))
	}
	y.Min, y.Max = ticks[0], ticks[len(ticks)-1]
	y.Tick.Marker = apart(ticks, *y)
}

// apart returns ticks at the values, without labels that would overlap the previous one.
func apart(values []float64, axis plot.Axis) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	last := math.Inf(-1)
	for _, value := range values {
		tick := plot.Tick{Value: value}
		if at := axis.Norm(value); at-last >= 0.06 {
			tick.Label, last = short(value), at
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

// logTicks returns the powers of ten around a range; in a range below 1:1000 also their multiples by 2 and 5.
func logTicks(low, high float64) []float64 {
	factors := []float64{1, 2, 5}
	if high >= 1000*low {
		factors = factors[:1]
	}
	var ticks []float64
	for decade := math.Floor(math.Log10(low)); ; decade++ {
		for _, factor := range factors {
			tick := factor * math.Pow(10, decade)
			if len(ticks) == 1 && tick <= low {
				ticks = nil // The range starts above the previous tick.
			}
			if ticks = append(ticks, tick); len(ticks) > 1 && tick >= high {
				return ticks
			}
		}
	}
}

// linearTicks returns about four to ten round numbers around a range.
func linearTicks(low, high float64) []float64 {
	if low == high {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high-low)))
	for _, smaller := range []float64{2, 2.5} {
		if (high-low)/step >= 4 {
			break
		}
		step /= smaller
	}
	var ticks []float64
	for i := math.Floor(low / step); ; i++ {
		ticks = append(ticks, i*step)
		if i*step >= high {
			return ticks
		}
	}
}
