// xoriter measures Prometheus' XOR chunk iterator over chunks that Isobar's example wrote:
//
//	cargo run --release -p isobar-tsdb --example decode -- BLOCK_DIR --dump chunks.bin
//	cp benches/peers/xoriter.go PROMETHEUS/cmd/xoriter/main.go
//	cd PROMETHEUS && go run ./cmd/xoriter chunks.bin
//
// It prints million samples per second for each kind of series and for all. As there, the time is
// the sum of the shortest times of groups of chunks.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const (
	rounds = 60
	group  = 32
)

var kinds = []string{"constant", "integer counter", "integer gauge", "float counter", "float gauge", "all"}

func main() {
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	chunks := make([][]chunkenc.Chunk, len(kinds))
	all := len(kinds) - 1
	for len(data) > 0 {
		kind := binary.LittleEndian.Uint32(data[4:])
		end := 12 + binary.LittleEndian.Uint32(data[8:])
		chunk, err := chunkenc.FromData(chunkenc.EncXOR, data[12:end:end])
		if err != nil {
			panic(err)
		}
		chunks[kind] = append(chunks[kind], chunk)
		chunks[all] = append(chunks[all], chunk)
		data = data[end:]
	}
	for kind, name := range kinds {
		if len(chunks[kind]) > 0 {
			measure(name, chunks[kind])
		}
	}
}

func measure(name string, chunks []chunkenc.Chunk) {
	shortest := make([]time.Duration, (len(chunks)+group-1)/group)
	for i := range shortest {
		shortest[i] = time.Hour
	}
	samples := 0
	var (
		it  chunkenc.Iterator
		sum float64
	)
	for range rounds {
		samples = 0
		for i := range shortest {
			begin := time.Now()
			for _, chunk := range chunks[i*group : min(len(chunks), (i+1)*group)] {
				it = chunk.Iterator(it)
				for it.Next() == chunkenc.ValFloat {
					_, value := it.At()
					sum += value
					samples++
				}
			}
			shortest[i] = min(shortest[i], time.Since(begin))
		}
	}
	var total time.Duration
	for _, it := range shortest {
		total += it
	}
	fmt.Printf("%-15s %6d chunks %8d samples, M samples/s: %6.1f (sum %g)\n",
		name, len(chunks), samples, float64(samples)/total.Seconds()/1e6, sum)
}
