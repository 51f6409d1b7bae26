-- `next_at >= 0` says nothing: it always holds, and queries for what is due first repeat it. Those for one target do
-- not, and so the planner cannot answer them from this index. Where one target owns a backlog of a million it did, and
-- went through all of that to find out that the others had nothing.
CREATE INDEX delivery_oldest ON webhook.delivery (next_at, id) WHERE state = 0 AND NOT leased AND next_at >= 0;
DROP INDEX webhook.delivery_due;
