//! What groups use: one group's curve, or the newest values of many.

use super::{action, json_list, wire};

wire! {
    /// Asks for the curve of one group.
    pub struct DescribeContainerGroupMetricRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// From when, default five minutes before the end.
        pub start_time: Option<String>,
        /// Until when, default now.
        pub end_time: Option<String>,
        /// Seconds between records: 15, 30, 60 (default) or 600.
        pub period: Option<String>,
    }

    /// The curve of one group.
    pub struct DescribeContainerGroupMetricResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The group.
        pub container_group_id: String,
        /// At most 50 records, oldest first.
        pub records: Vec<MetricRecord>,
    }

    /// Asks for the newest values of up to 20 groups.
    pub struct DescribeMultiContainerGroupMetricRequest {
        /// The region.
        pub region_id: String,
        /// The groups.
        #[serde(with = "json_list")]
        pub container_group_ids: Vec<String>,
        /// `summary`.
        pub metric_type: Option<String>,
    }

    /// The newest values of groups.
    pub struct DescribeMultiContainerGroupMetricResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// One entry per group that has values.
        pub monitor_datas: Vec<MonitorData>,
    }

    /// The newest values of one group.
    pub struct MonitorData {
        /// The group.
        pub container_group_id: String,
        /// The records, oldest first.
        pub records: Vec<MetricRecord>,
    }

    /// What a group used at one moment.
    pub struct MetricRecord {
        /// When.
        pub timestamp: String,
        /// Of the group.
        #[serde(rename = "CPU")]
        pub cpu: CpuMetric,
        /// Of the group.
        pub memory: MemoryMetric,
        /// Of the group.
        pub network: NetworkMetric,
        /// File system by file system.
        pub filesystem: Vec<FilesystemMetric>,
        /// Disk by disk.
        pub disk: Vec<DiskMetric>,
        /// Container by container.
        pub containers: Vec<ContainerMetric>,
    }

    /// The room of a file system.
    pub struct FilesystemMetric {
        /// Its name.
        pub fs_name: String,
        /// `System`, `Volume`, `Other`; only when one group is asked about.
        pub category: Option<String>,
        /// Bytes in all.
        pub capacity: u64,
        /// Bytes used.
        pub usage: u64,
        /// Bytes left.
        pub available: u64,
    }

    /// The traffic of a disk; the names of two members depend on how many groups are asked about.
    pub struct DiskMetric {
        /// The device.
        pub device: String,
        /// Bytes read.
        pub read_bytes: u64,
        /// Bytes written.
        pub write_bytes: u64,
        /// Reads, when one group is asked about.
        #[serde(rename = "ReadIO")]
        pub read_io: Option<u64>,
        /// Writes, when one group is asked about.
        #[serde(rename = "WriteIO")]
        pub write_io: Option<u64>,
        /// Reads, when many groups are asked about.
        #[serde(rename = "ReadIo")]
        pub read_io_of_many: Option<u64>,
        /// Writes, when many groups are asked about.
        #[serde(rename = "WriteIo")]
        pub write_io_of_many: Option<u64>,
    }

    /// Processor time.
    pub struct CpuMetric {
        /// Billionths of a core over the last sample.
        pub usage_nano_cores: u64,
        /// Since the start.
        pub usage_core_nano_seconds: u64,
        /// The load average.
        pub load: u64,
        /// Thousandths of a vCPU that may be used.
        pub limit: u64,
    }

    /// Memory.
    pub struct MemoryMetric {
        /// With caches.
        pub usage_bytes: u64,
        /// What cannot be given back.
        pub working_set: u64,
        /// Anonymous memory.
        pub rss: u64,
        /// Caches.
        pub cache: u64,
        /// Left until the limit.
        pub available_bytes: u64,
    }

    /// Traffic.
    pub struct NetworkMetric {
        /// Interface by interface.
        pub interfaces: Vec<InterfaceMetric>,
    }

    /// The traffic of an interface.
    pub struct InterfaceMetric {
        /// Its name.
        pub name: String,
        /// Bytes received.
        pub rx_bytes: u64,
        /// Packets received.
        pub rx_packets: u64,
        /// Packets received with an error.
        pub rx_errors: u64,
        /// Packets received and dropped.
        pub rx_drops: u64,
        /// Bytes sent.
        pub tx_bytes: u64,
        /// Packets sent.
        pub tx_packets: u64,
        /// Packets not sent for an error.
        pub tx_errors: u64,
        /// Packets dropped before they were sent.
        pub tx_drops: u64,
    }

    /// What one container used.
    pub struct ContainerMetric {
        /// The container.
        pub name: String,
        /// Processor time.
        #[serde(rename = "CPU")]
        pub cpu: CpuMetric,
        /// Memory.
        pub memory: MemoryMetric,
    }
}

action!(DescribeContainerGroupMetricRequest => DescribeContainerGroupMetricResponse, "DescribeContainerGroupMetric", read);
action!(DescribeMultiContainerGroupMetricRequest => DescribeMultiContainerGroupMetricResponse, "DescribeMultiContainerGroupMetric", read);
