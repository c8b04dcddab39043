//! Making an image from a running container.

use super::create::AcrRegistry;
use super::{Action, wire};

wire! {
    /// Makes an image from a running container.
    pub struct CommitContainerRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// The container.
        pub container_name: String,
        /// The image to make.
        pub image: Option<CommitImage>,
        /// The registry to push to.
        pub acr_registry_info: Option<AcrRegistry>,
        /// The role to push with.
        pub arn: Option<CommitArn>,
    }

    /// The image to make.
    pub struct CommitImage {
        /// Its repository.
        pub repository: String,
        /// Its tag.
        pub tag: String,
        /// What was done.
        pub message: Option<String>,
        /// Who did it.
        pub author: Option<String>,
    }

    /// The role to push with.
    pub struct CommitArn {
        /// The role.
        pub role_arn: String,
        /// `service`.
        pub role_type: String,
    }

    /// The task that makes it.
    pub struct CommitContainerResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The task.
        pub task_id: String,
    }

    /// Asks how commits go.
    pub struct DescribeCommitContainerTaskRequest {
        /// The region.
        pub region_id: String,
        /// Only of this group.
        pub container_group_id: Option<String>,
        /// Only these, at most 10.
        pub task_id: Vec<String>,
        /// `Running`, `Succeeded`, `Failed`.
        pub task_status: Option<String>,
        /// Page size, default 10, at most 50.
        pub max_results: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of commits.
    pub struct DescribeCommitContainerTaskResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The tasks.
        pub commit_tasks: Vec<CommitTask>,
        /// Page size, as text.
        pub max_results: String,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching tasks over all pages.
        pub total_count: u32,
    }

    /// How a commit goes.
    pub struct CommitTask {
        /// The task.
        pub task_id: String,
        /// The container.
        pub container_name: String,
        /// `Running`, `Succeeded`, `Failed`.
        pub task_status: String,
        /// Such as `100%`.
        pub task_progress: String,
        /// What went wrong.
        pub status_message: String,
        /// When it was asked for.
        pub task_creation_time: String,
        /// When it ended.
        pub task_finished_time: Option<String>,
        /// Step by step.
        pub commit_phase_infos: Vec<CommitPhaseInfo>,
    }

    /// One step of a commit.
    pub struct CommitPhaseInfo {
        /// `PullBaseImage`, `CommitContainer`, `PushCommittedImage`.
        pub phase: String,
        /// `Running`, `Succeeded`, `Failed`.
        pub status: String,
        /// What went wrong.
        pub message: String,
        /// When.
        pub record_time: String,
    }
}

impl Action for CommitContainerRequest {
    const NAME: &'static str = "CommitContainer";
    // Each call makes another image, and the interface has no token for it.
    const REPEATABLE: bool = false;
    type Response = CommitContainerResponse;
}

super::action!(DescribeCommitContainerTaskRequest => DescribeCommitContainerTaskResponse, "DescribeCommitContainerTask", read);
